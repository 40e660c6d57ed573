# Completion of hastctl for bash, loaded by bash-completion when hastctl is first completed.
# Resources are those that hast.conf names; a hast.json is not looked into.

_hastctl_names() {
    local file=${HAST_CONF:-/etc/hast.conf} index
    for ((index = 1; index < COMP_CWORD; index++)); do
        case ${COMP_WORDS[index]} in
            -c | --config) file=${COMP_WORDS[index + 1]} ;;
        esac
    done
    sed -n 's/^[[:space:]]*resource[[:space:]]\{1,\}"\{0,1\}\([^"{[:space:]]*\).*/\1/p' \
        "$file" 2> /dev/null
}

_hastctl() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    local command='' index position=0 words='' options=''
    COMPREPLY=()
    case $before in
        -c | --config | --undo | --dir | --directory)
            compopt -o filenames 2> /dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            return
            ;;
        --node | -e | --extentsize | -k | --keepdirty | -m | --mediasize | --timeout | --wait | \
            --address | --minutes) return ;;
        --role)
            mapfile -t COMPREPLY < <(compgen -W 'init primary secondary' -- "$word")
            return
            ;;
    esac
    for ((index = 1; index < COMP_CWORD; index++)); do
        case ${COMP_WORDS[index - 1]} in
            -c | --config | --node | -e | --extentsize | -k | --keepdirty | -m | --mediasize | \
                --timeout | --wait | --undo | --dir | --directory | --address | --minutes | --role)
                continue
                ;;
        esac
        case ${COMP_WORDS[index]} in
            -*) ;;
            *) if [ -z "$command" ]; then command=${COMP_WORDS[index]}; else ((position++)); fi ;;
        esac
    done
    case $command in
        '')
            words='attach check create detach down dump events help install-units list map pair
                peer-gone resolve resync role status switchover top undo up upgrade wait'
            options='--config --node --json --debug --version'
            ;;
        check) options='--peer' ;;
        status) options='--watch' ;;
        map) options='--ascii' ;;
        create) options='--extentsize --keepdirty --mediasize --force --assume-clean' ;;
        role) options='--force --if-init' ;;
        resolve) options='--discard-local --discard-peer --dry-run --undo' ;;
        install-units) options='--dir --print --force' ;;
        pair) options='--directory --address --minutes --force' ;;
        up) options='--wait' ;;
        wait) options='--connected --synced --role --timeout' ;;
    esac
    case $command/$position in
        /* | check/* | help/* | install-units/*) ;;
        role/0) words='init primary secondary' ;;
        resync/0) words='pause resume' ;;
        pair/0) words='init join' ;;
        pair/*) ;;
        create/* | switchover/0 | resolve/0 | undo/0 | map/0) words=$(_hastctl_names) ;;
        switchover/* | resolve/* | map/*) ;;
        undo/*)
            compopt -o filenames 2> /dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            return
            ;;
        *) words="all $(_hastctl_names)" ;;
    esac
    [[ $word != -* ]] || words="$options --help"
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -F _hastctl hastctl
