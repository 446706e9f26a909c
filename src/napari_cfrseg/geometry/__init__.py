"""Windows on a plane and the boxes that masks lie in."""
