"""Train and fine-tune click networks on instance labels."""

import napari_cfrseg  # noqa: F401 - finds former module paths of this package, too
