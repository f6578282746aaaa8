"""What a store answers for people who watch: one module for each subject, plain records without behaviour."""
