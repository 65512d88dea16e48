"""moq-transfork-03, and the development version of gomoqt that came of it."""
