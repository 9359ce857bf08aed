"""Every experiment of the lab, one module each, in the order they are listed and run."""

from headgate.lab.experiments.overload import EXPERIMENT as OVERLOAD
from headgate.lab.experiments.ping import EXPERIMENT as PING
from headgate.lab.experiments.sleep import EXPERIMENT as SLEEP

EXPERIMENTS = (PING, SLEEP, OVERLOAD)
