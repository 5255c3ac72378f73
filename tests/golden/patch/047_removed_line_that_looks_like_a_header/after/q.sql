-- c
-- b
select 1
