"""The living things: mailboxes, partitions, the log writer, index builders, the node.

An actor is one task, one bounded mailbox and one machine; it moves the machine's inputs and effects
and decides nothing itself. Only the owner task changes a machine; reads are synchronous calls.
"""
