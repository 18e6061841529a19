"""The model test: a broker and a simple model of what the interface promises, driven side by side."""
