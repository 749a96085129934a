"""The only private pieces of Flower that we touch, in one place, with a contract test.

Flower 1.42's `Message` reads the sender's identity from a process-wide value and has no public
way to set a message's id; its simulation engine does the same.
"""

from __future__ import annotations

from flwr.app import Message
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity


def take_identity(run_id: int) -> None:
    """Makes this process the sender of the messages it creates from now on."""
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = 1


def empty_run(run_id: int) -> Run:
    """Returns Flower's description of a run that has no FAB."""
    return Run.create_empty(run_id)


def number_message(message: Message, number: int) -> str:
    """Gives a message its id and returns it."""
    identifier = f"{number:016x}"
    message.metadata.__dict__["_message_id"] = identifier
    return identifier
