"""Amazon SQS, with SNS for topics, through boto3.

URLs: `sqs://` is AWS, with boto3's own credentials and region. `sqs://localhost:4566?region=us-east-1&access_key=test&
secret_key=test` is an emulator; `python -m moto.server -p 5000` is one that needs no container, as
`sqs://127.0.0.1:5000?...`. An endpoint without SNS has queues and no topics. Options: `SQSOptions`.

Delivery semantics: at least once. A message is invisible to others while its consumer lives (heartbeat) and comes
back `visibility` seconds after the consumer died. `ordered=True` is FIFO: one consumer at a time for each key.
`attempt` is ApproximateReceiveCount, which also counts messages that were buffered and given back.

Escaping: names: `.` becomes `__`, long ones end in a hash. Bodies that are not XML 1.0 text are base64. Headers that
SQS cannot carry as attributes, or of which there are too many, travel in the attribute `x-messaging`.
`native` is the boto3 SQS client; a delivery's is the dict of ReceiveMessage.
"""

from messaging_sqs.driver import SQSDriver
from messaging_sqs.options import SQSOptions

__all__ = ["SQSDriver", "SQSOptions"]
