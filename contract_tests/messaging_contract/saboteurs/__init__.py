"""Drivers with one planted defect each. A suite that lets one of them pass proves nothing about that promise."""
