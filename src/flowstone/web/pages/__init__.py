"""The pages and actions of the dashboard, a module for each subject; all of them are found by themselves."""
