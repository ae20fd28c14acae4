"""The first lines of the program: ``python -I -S start.py RUNC SOCKET SECONDS ARGUMENTS...``."""

import sys

if __name__ == "__main__":
    # -I leaves out the directory of this file, and nothing is installed with -S.
    sys.path.insert(0, __file__.rpartition("/agent/host/")[0])

    from agent.host.wrapper.main import main

    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4:])
