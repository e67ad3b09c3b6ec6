-- name: CarStatsAdd :exec
-- Adds to the totals of each make and year. The four arrays are parallel, and each make and year is in them once. The rows are locked in one
-- order, so that two cars that swap their makes do not deadlock.
INSERT INTO car_stats (make, year, cars, changes)
SELECT
    unnest(@makes::varchar[]) AS make,
    unnest(@years::integer[]) AS year,
    unnest(@cars::bigint[]) AS cars,
    unnest(@changes::bigint[]) AS changes
ORDER BY make, year
ON CONFLICT ON CONSTRAINT car_stats_pkey DO UPDATE
SET cars = car_stats.cars + excluded.cars,
    changes = car_stats.changes + excluded.changes;

-- name: CarStatsCarPut :exec
-- Remembers under which make and year the car is counted. It must not be counted at the time.
INSERT INTO car_stats_car (car_id, make, year) VALUES (@car_id, @make, @year);

-- name: CarStatsCarTake :one
-- Forgets the car and returns the make and year of its total, or pgx.ErrNoRows when it was not counted.
DELETE FROM car_stats_car WHERE car_id = @car_id RETURNING make, year;
