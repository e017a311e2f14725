-- A course with a limited number of places, decided over tags: docs/boundaries.md.
\set ON_ERROR_STOP on

-- == 1. A course with seven places, and students ==
create schema course;

select es_append('course-sql', 'CourseOffered', '{"places": 7}', tags => '{course:sql}');

-- == 2. What an enrolment depends on: the events of the course, whoever wrote them ==
create function course.free(course text) returns bigint language sql volatile as $$
    select sum(case event_type when 'CourseOffered' then (payload ->> 'places')::bigint when 'Enrolled' then -1 else 0 end)
    from es_read_backward(tags => array['course:' || course], max_count => 100000)
$$;

create function course.enrol(student text, course text, out answer text, out attempts int) language plpgsql as $$
declare
    condition jsonb;
begin
    attempts := 0;
    loop
        attempts := attempts + 1;
        -- How far that is seen, before anything is read.
        condition := es_condition(jsonb_build_object('items', jsonb_build_array(jsonb_build_object('tags', jsonb_build_array('course:' || course)))));
        if course.free(course) < 1 then
            answer := 'full';
            return;
        end if;
        begin
            perform es_append_streams(jsonb_build_array(jsonb_build_object('stream', 'student-' || student, 'events', jsonb_build_array(
                jsonb_build_object('type', 'Enrolled', 'payload', '{}'::jsonb, 'tags', jsonb_build_array('course:' || course, 'student:' || student))))),
                condition => condition);
            answer := 'enrolled';
            return;
        exception when sqlstate 'ES015' then
            -- Somebody was faster: another condition, read, decide again.
            null;
        end;
    end loop;
end $$;

select * from course.enrol('ann', 'sql');
