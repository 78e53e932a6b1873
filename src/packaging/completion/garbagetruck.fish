# fish completion for garbagetruck(1). It asks the program itself, so that it knows what that knows.
function __garbagetruck_words
    for word in (commandline -opc)[2..-1]
        string match -rq '^(serve|health|lease|create|renew|get|release|list|hold)$' -- $word; and echo $word
    end
end
function __garbagetruck_flags
    garbagetruck (__garbagetruck_words) --help 2>/dev/null | string match -r '^  --[a-z-]+' | string trim
end
complete -c garbagetruck -f
complete -c garbagetruck -n 'test -z "$(__garbagetruck_words)"' -a 'serve health lease'
complete -c garbagetruck -n 'test "$(__garbagetruck_words)" = lease' -a 'create renew get release list hold'
complete -c garbagetruck -n 'string match -q -- "-*" (commandline -ct)' -a '(__garbagetruck_flags)'
complete -c garbagetruck -l object-type -x -a 'database-row blob-storage temporary-file websocket-session cache-entry custom'
for file in token-file tls-cert tls-key tls-ca tls-client-ca target-tls-ca file-root pg-bindir
    complete -c garbagetruck -l $file -r -F
end
