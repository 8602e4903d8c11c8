# What redis-cli's commands become: the lines of docs/migrating.md.

# A key space for each database, and the password a token.
export LARDER_SERVER=http://127.0.0.1:5051 LARDER_TOKEN=lrd_...

larder set session:7 gopher --ttl 1h            # SET session:7 gopher EX 3600
larder get session:7                            # GET session:7
larder set lock mine --if-absent --ttl 30s      # SET lock mine NX EX 30
larder set session:7 con --if-present --keep-ttl # SET session:7 con XX KEEPTTL
larder touch session:7 --ttl 2h                 # EXPIRE session:7 7200
larder touch session:7 --never                  # PERSIST session:7
larder incr hits 5                              # INCRBY hits 5
larder keys session:                            # SCAN 0 MATCH session:*
larder usage                                    # DBSIZE, INFO
larder del session:7 lock                       # DEL session:7 lock
larder del --prefix hits                        # no counterpart in Redis
larder --namespace reports set monday 1         # SELECT 3; SET monday 1
