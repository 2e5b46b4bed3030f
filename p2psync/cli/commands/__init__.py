"""One module per command, listed here with the line that `--help` shows.

The module has the command's name and offers a click command called `command`.
"""

from typing import Final

COMMANDS: Final = {
    "share": "Share a folder: print a code for the other device.",
    "accept": "Take the folder a code stands for.",
    "status": "Show folders, peers and what is in the way.",
    "wait": "Return when everything is in sync.",
    "devices": "List the paired devices.",
    "id": "Print this device's id.",
    "leave": "Stop syncing a folder; its files stay.",
    "forget": "Cut a device off.",
    "start": "Start the agent in the background.",
    "stop": "End the agent.",
    "agent": "Be the agent, in the foreground.",
    "service": "Have the system start the agent at boot.",
    "demo": "Watch two folders on this machine stay equal.",
}
