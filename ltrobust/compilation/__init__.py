"""What programs need on devices that are not there: compilers, memory, modelled time, messages."""
