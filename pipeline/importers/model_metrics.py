"""The protocol buffer message that NAS-Bench-101 stores for each training (`model_metrics.proto` of its repository).

message ModelMetrics   { repeated EvaluationData evaluation_data = 1; int32 trainable_parameters = 2;
                         double total_time = 3; }
message EvaluationData { double current_epoch = 1; double training_time = 2; double train_accuracy = 3;
                         double validation_accuracy = 4; double test_accuracy = 5; string checkpoint_path = 6; }
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

NUMBERS = ("current_epoch", "training_time", "train_accuracy", "validation_accuracy", "test_accuracy")

#: The five numbers of an evaluation: epochs and seconds of training, three accuracies as fractions.
Evaluation = tuple[float, float, float, float, float]


def message_class() -> Any:
    """The class of `ModelMetrics` messages."""
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="model_metrics.proto", package="nasbench", syntax="proto2")
    evaluation = file.message_type.add(name="EvaluationData")
    for number, name in enumerate(NUMBERS, start=1):
        # Read a missing number as NaN: the default, 0, would be a valid accuracy.
        evaluation.field.add(
            name=name, number=number, type=kind.TYPE_DOUBLE, label=kind.LABEL_OPTIONAL, default_value="nan"
        )
    evaluation.field.add(name="checkpoint_path", number=6, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
    metrics = file.message_type.add(name="ModelMetrics")
    metrics.field.add(
        name="evaluation_data",
        number=1,
        type=kind.TYPE_MESSAGE,
        label=kind.LABEL_REPEATED,
        type_name=".nasbench.EvaluationData",
    )
    metrics.field.add(name="trainable_parameters", number=2, type=kind.TYPE_INT32, label=kind.LABEL_OPTIONAL)
    metrics.field.add(name="total_time", number=3, type=kind.TYPE_DOUBLE, label=kind.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("nasbench.ModelMetrics"))


_ModelMetrics = message_class()


def read_evaluations(content: bytes) -> list[Evaluation]:
    """Return the evaluations of a serialised `ModelMetrics` message in the order of training, with NaN where a number
    is missing.

    Raises `ValueError` if `content` is not such a message.
    """
    try:
        message = _ModelMetrics.FromString(content)
    except DecodeError as error:
        raise ValueError("not a ModelMetrics message") from error
    return [
        (e.current_epoch, e.training_time, e.train_accuracy, e.validation_accuracy, e.test_accuracy)
        for e in message.evaluation_data
    ]
