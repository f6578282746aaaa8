-- Steps of backfills and retries are begun straight from this table: the job id 0 says so, and no row of Oban's queue is
-- written, taken and ended for them. A step that goes on later, such as one that is tried again, gets a job. The new
-- index has entries of such steps alone: it is empty at first, and made without reading more than the table once.
CREATE INDEX steps_to_begin ON flowstone.steps (queue, run_id, priority, id) WHERE state = 'pending' AND job_id = 0;
