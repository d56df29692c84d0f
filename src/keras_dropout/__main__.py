"""The command keras-dropout, also `python -m keras_dropout`. What it needs to be installed is said before it is loaded."""

import sys

from keras_dropout.errors import BadInput
from keras_dropout.frameworks import needing


def main() -> None:
    """Run the command; if a package that it needs is not installed, say in two lines how to get it."""
    try:
        with needing("the command"):
            from keras_dropout import cli
    except BadInput as error:
        print(f"keras-dropout: {error}", file=sys.stderr)
        sys.exit(2)
    cli.main()


if __name__ == "__main__":
    main()
