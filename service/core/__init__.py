"""The nouns, errors and ports that every room of the service shares. Imports numpy and the standard library only."""
