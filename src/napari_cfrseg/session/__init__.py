"""Click sessions: everything a person did, in one file, replayed anywhere.

>>> from napari_cfrseg import Segmenter, Session
>>> session = Session.open("cells.cfrseg.json")      # doctest: +SKIP
>>> labels = session.apply(segmenter=Segmenter.load())  # doctest: +SKIP
"""
