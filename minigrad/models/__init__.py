"""Published architectures into which published weights load by name."""

from minigrad.models.bert import BertForSequenceClassification, BertModel
from minigrad.models.config import BertConfig

__all__ = ["BertConfig", "BertForSequenceClassification", "BertModel"]
