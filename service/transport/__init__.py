"""Thin transports: parse, call the engine, render. They do not know each other, nor any concrete engine or store."""
