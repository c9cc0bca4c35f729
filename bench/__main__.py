from bench.reference.command import main

main()
