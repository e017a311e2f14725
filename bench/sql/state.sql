select es_state('counter-2');
