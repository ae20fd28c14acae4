"""Servers that tests start for themselves: on loopback, on ports of their own, gone afterwards."""
