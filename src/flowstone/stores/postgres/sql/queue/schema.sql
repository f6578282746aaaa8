-- Oban's statements create their types in the first schema of the path.
SET LOCAL search_path TO public;
