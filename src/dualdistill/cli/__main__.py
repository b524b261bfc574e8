from dualdistill.cli import main

main()
