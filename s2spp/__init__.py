"""s2spp: a first frame and its mask in, the object's mask in every later frame out."""
