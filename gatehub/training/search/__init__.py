"""Several runs on the same images, of which the validation images choose one."""

from gatehub.training.search.record import Search, Trial, Tried
from gatehub.training.search.runs import SearchReport, run_search
from gatehub.training.search.settings import TuneSmall, suits
from gatehub.training.search.stems import LongestStem, Stage, list_stages

__all__ = [
    "LongestStem",
    "Search",
    "SearchReport",
    "Stage",
    "Trial",
    "Tried",
    "TuneSmall",
    "list_stages",
    "run_search",
    "suits",
]
