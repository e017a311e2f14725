select state from plain.states where stream = 'counter-2';
