-- The same decision by hand, in one function, without a key.
\set s random(1, :streams)
select decide_by_hand('till-' || :s, 'Deposit', '{"amount": 12.50}');
