"""The parts networks are built of: FFCM, CFFM, decoders, click maps."""
