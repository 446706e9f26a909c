"""The napari side: layers, dock, worker. Nothing else may import it."""
