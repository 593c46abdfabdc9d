package peers;

import java.util.HashMap;
import java.util.Map;

/** What a run is told: arguments of the form name=value. */
record Settings(Map<String, String> given) {
    static Settings of(String[] arguments) {
        Map<String, String> given = new HashMap<>();
        for (String argument : arguments) {
            int at = argument.indexOf('=');
            if (at < 0) {
                throw new IllegalArgumentException("not name=value: " + argument);
            }
            given.put(argument.substring(0, at), argument.substring(at + 1));
        }
        return new Settings(given);
    }

    String text(String name) {
        String value = given.get(name);
        if (value == null) {
            throw new IllegalArgumentException("missing: " + name + "=...");
        }
        return value;
    }

    long number(String name) {
        return Long.parseLong(text(name));
    }
}
