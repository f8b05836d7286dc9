"""`python -m trainer <command>`."""

import logging
import os
import sys

from trainer.main import main

if __name__ == "__main__":
    code = main(sys.argv[1:])
    logging.shutdown()
    sys.stdout.flush()
    # Not sys.exit: a transfer that was given up may still run in its thread, and obstore's crash when they come back
    # to an interpreter that is shutting down.
    os._exit(code)
