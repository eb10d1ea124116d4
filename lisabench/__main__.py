"""`python -m lisabench`: the program where its script is not installed."""

from lisabench.cli import main

if __name__ == "__main__":
    main()
