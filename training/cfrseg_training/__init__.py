"""Train and fine-tune click networks on instance labels."""
