"""The differential machine: stock SQLAlchemy and ours through the same programs, compared after every step.

``models`` what the programs work on · ``grounds`` the databases, two of everything · ``arms`` the engines ·
``mends`` what chance decides in stock · ``tally`` what was played ·
``settings``, ``steps`` what programs consist of · ``deeds_*`` what a program can do · ``player`` runs it and
tells what could be seen · ``programs`` generates ·
``differences`` what may differ, and nothing else · ``stage`` plays a program on both arms.
"""
