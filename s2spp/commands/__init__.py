"""One module per command of the `s2spp` program. Each imports its side of the project only when it runs."""
