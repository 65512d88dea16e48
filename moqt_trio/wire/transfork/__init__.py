"""moq-transfork-03, and the development version of gomoqt that is derived from it."""
