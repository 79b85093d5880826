"""What differs between fits of the same data: a table, and the main job that fits, compares and writes a folder."""

from ppnmf.report.comparison import Comparison, compare, describe_model
from ppnmf.report.experiment import DEFAULT, Experiment, compare_methods, held_out_mask
from ppnmf.report.facts import describe_data, environment, for_json, write_json
from ppnmf.report.files import thinned, write
from ppnmf.report.page import page, try_page, write_page

__all__ = [
    "DEFAULT",
    "Comparison",
    "Experiment",
    "compare",
    "compare_methods",
    "describe_data",
    "describe_model",
    "environment",
    "for_json",
    "held_out_mask",
    "page",
    "thinned",
    "try_page",
    "write",
    "write_json",
    "write_page",
]
