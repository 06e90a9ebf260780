"""seqio Tasks and Mixtures over the corpus, and the functions by which users add their own.

import data_tasks, seqio
data_tasks.configure(corpus="/path/to/corpus", vocabulary="/path/to/tokenizer.json")
dataset = seqio.get_mixture_or_task("agent_code_text").get_dataset({"targets": 2048, "loss_weights": 2048}, "train")
"""

from data_tasks.mixtures import MIXTURES
from data_tasks.records import add_corpus_task, add_record_task, add_user_task
from data_tasks.settings import DataSettings, configure, current

__all__ = ["MIXTURES", "DataSettings", "add_corpus_task", "add_record_task", "add_user_task", "configure", "current"]
