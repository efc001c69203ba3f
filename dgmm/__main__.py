"""``python -m dgmm`` is ``dgmm``: it loads the commands, and runs one."""

import signal

from dgmm.model.lazy import Late

commands = Late("dgmm.cli.commands")


def main() -> None:
    """Run a command; Ctrl-C ends it without a traceback, also while it is loaded."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # nohup has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    commands.main()


if __name__ == "__main__":
    main()
