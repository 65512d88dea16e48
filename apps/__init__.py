"""Programs built on moqt_trio's public names."""
