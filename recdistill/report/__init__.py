"""What a run tells: records, tables. Never imports torch."""
