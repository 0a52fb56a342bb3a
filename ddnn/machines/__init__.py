"""Sans-IO parts that every room uses: membership, gather, outbox."""
