"""Where the named data sets come from: facts only. A further data set is one entry here and one YAML file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recdistill.dataset.publishers import read_check_ins, read_invoices
from recdistill.dataset.table import RawTable


@dataclass(frozen=True)
class Remote:
    """One file of a data set on a server.

    Attributes:
        url: of the file, or of the archive that holds it.
        file: its name here.
        member: its name in the archive (None: the url gives the file itself).
        sha256: of the file; only of bytes from this very address that were seen.
        md5: of what the url gives, as its publisher states it.
    """

    url: str
    file: str
    member: str | None = None
    sha256: str | None = None
    md5: str | None = None


@dataclass(frozen=True)
class Package:
    """A package of the Python registry that holds a copy of a data set."""

    requirement: str
    member: str
    file: str


@dataclass(frozen=True)
class Origin:
    """What is known of a data set.

    Attributes:
        remotes: its files; `train.txt` and `test.txt` are a split that is used as given.
        format: of the files, as `dataset.format` names it.
        n_users, n_items, n_interactions: as published; interactions are the rows of the files.
        licence: in a word or two. terms: in full.
        citation: of the paper that presents it.
        table: SHA-256 of the canonical table; only of one that was seen.
        names: further names under which a copy may lie in `paths.data`.
        package: where else it can be fetched.
        read: reader of a file in a format of the publisher's own.
    """

    remotes: tuple[Remote, ...]
    format: str
    n_users: int
    n_items: int
    n_interactions: int
    licence: str
    terms: str
    citation: str
    table: str | None = None
    names: tuple[str, ...] = ()
    package: Package | None = None
    read: Callable[[Path], RawTable] | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files, as they lie in one folder."""
        return tuple(remote.file for remote in self.remotes)

    @property
    def check(self) -> str:
        """By what a fetched copy is recognised as the data set: `sha256`, `md5` or, if by nothing, `unverified`."""
        if self.table is not None or all(remote.sha256 for remote in self.remotes):
            return "sha256"
        return "md5" if all(remote.md5 or remote.sha256 for remote in self.remotes) else "unverified"


TIDY = "interactions.tsv.gz"  # a copy with a header
GROUPLENS = "https://files.grouplens.org/datasets"
LIGHTGCN = "https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/master/data"
HARPER = 'Harper and Konstan, "The MovieLens Datasets", ACM TiiS 5(4), 2015, doi:10.1145/2827872'
MOVIELENS = "(c) GroupLens: research use, no redistribution, no commercial use without permission"
UNKNOWN = "no licence is stated; collected for research"
HE = 'He et al., "LightGCN", SIGIR 2020, doi:10.1145/3397271.3401063'


def _lightgcn(name: str, n_users: int, n_items: int, n_interactions: int, citation: str) -> Origin:
    remotes = tuple(Remote(f"{LIGHTGCN}/{name}/{file}", file) for file in ("train.txt", "test.txt"))
    return Origin(
        remotes, "adjacency", n_users, n_items, n_interactions, "none stated", UNKNOWN, f"{citation}; split: {HE}"
    )


ORIGINS = {
    "ml-100k": Origin(
        remotes=(
            Remote(
                f"{GROUPLENS}/movielens/ml-100k.zip",
                "u.data",
                "ml-100k/u.data",
                md5="0e33842e24a9c977be4e0107933c0723",
            ),
        ),
        format="u.data",
        n_users=943,
        n_items=1_682,
        n_interactions=100_000,
        licence="research only",
        terms=MOVIELENS,
        citation=HARPER,
        table="0bbca700a649ca4c76da3670f06b96ee6ca7bc21829ca8a1b61c90a5d8176ab1",
        names=("ml-100k.inter",),
        package=Package("recbole==1.2.1", "recbole/dataset_example/ml-100k/ml-100k.inter", "ml-100k.inter"),
    ),
    "ml-1m": Origin(
        remotes=(
            Remote(
                f"{GROUPLENS}/movielens/ml-1m.zip",
                "ratings.dat",
                "ml-1m/ratings.dat",
                md5="c4d9eecfca2ab87c1945afe126590906",
            ),
        ),
        format="ratings.dat",
        n_users=6_040,
        n_items=3_706,
        n_interactions=1_000_209,
        licence="research only",
        terms=MOVIELENS,
        citation=HARPER,
        names=("ml-1m.inter",),
    ),
    "ml-20m": Origin(
        remotes=(
            Remote(
                f"{GROUPLENS}/movielens/ml-20m.zip",
                "ratings.csv",
                "ml-20m/ratings.csv",
                md5="cd245b17a1ae2cc31bb14903e1204af3",
            ),
        ),
        format="csv",
        n_users=138_493,
        n_items=26_744,
        n_interactions=20_000_263,
        licence="research only",
        terms=MOVIELENS,
        citation=HARPER,
        names=("ml-20m.inter",),
    ),
    "citeulike-a": Origin(
        remotes=(
            Remote(
                "https://raw.githubusercontent.com/js05212/citeulike-a/master/users.dat",
                "users.dat",
                sha256="53211d82c14ff261e595634d285ed9fbf8049cf81dcb751d924d695b9612a02c",
            ),
        ),
        format="users.dat",
        n_users=5_551,
        n_items=16_980,
        n_interactions=204_986,
        licence="none stated",
        terms=UNKNOWN,
        citation='Wang and Blei, "Collaborative Topic Modeling for Recommending Scientific Articles", KDD 2011',
        table="fcacaaa982544f0eed697688d22cec68b21c5901008e87d0364fbefeb1f24451",
    ),
    "citeulike-t": Origin(
        remotes=(
            Remote(
                "https://raw.githubusercontent.com/js05212/citeulike-t/master/users.dat",
                "users.dat",
                sha256="02d5d429b2c0362e0ed79f6ef204666b4092563d21493abf4dfb521e8a7078bf",
            ),
        ),
        format="users.dat",
        n_users=7_947,
        n_items=25_584,
        n_interactions=134_860,
        licence="none stated",
        terms=UNKNOWN,
        citation='Wang, Chen and Li, "Collaborative Topic Regression with Social Regularization", IJCAI 2013',
        table="7c27315afdfe46173e44fcbdfb723f754d0a331ca61fdd3cbb86cc106dfe289b",
    ),
    "lastfm-hetrec": Origin(
        remotes=(
            Remote(
                f"{GROUPLENS}/hetrec2011/hetrec2011-lastfm-2k.zip",
                "user_artists.dat",
                "user_artists.dat",
            ),
        ),
        format="tsv",
        n_users=1_892,
        n_items=17_632,
        n_interactions=92_834,
        licence="non-commercial",
        terms="made available for non-commercial use",
        citation="Cantador, Brusilovsky and Kuflik, HetRec 2011 at RecSys 2011",
        table="fdc90086302308d965d809144d11309c884c9710e86f11824778c99ac309628a",
        names=("user_artists.dat.gz",),
    ),
    "gowalla": _lightgcn(
        "gowalla", 29_858, 40_981, 1_027_370, 'Cho, Myers and Leskovec, "Friendship and Mobility", KDD 2011'
    ),
    "yelp2018": _lightgcn("yelp2018", 31_668, 38_048, 1_561_406, "Yelp Dataset Challenge 2018"),
    "amazon-book": _lightgcn("amazon-book", 52_643, 91_599, 2_984_108, 'He and McAuley, "Ups and Downs", WWW 2016'),
    "foursquare": Origin(
        remotes=(
            Remote(
                "http://www-public.tem-tsp.eu/~zhang_da/pub/dataset_tsmc2014.zip",
                "dataset_TSMC2014_TKY.txt",
                "dataset_tsmc2014/dataset_TSMC2014_TKY.txt",
            ),
        ),
        format="check-ins",
        n_users=2_293,
        n_items=61_858,
        n_interactions=573_703,
        licence="none stated",
        terms=UNKNOWN,
        citation='Yang et al., "Modeling User Activity Preference", IEEE TSMC 45(1), 2015',
        read=read_check_ins,
    ),
    "online-retail": Origin(
        remotes=(
            Remote(
                "https://raw.githubusercontent.com/databricks/Spark-The-Definitive-Guide/master"
                "/data/retail-data/all/online-retail-dataset.csv",
                "online-retail-dataset.csv",
            ),
        ),
        format="invoices",
        n_users=4_334,
        n_items=3_659,
        n_interactions=266_221,
        licence="CC BY 4.0",
        terms="CC BY 4.0 (UCI) or CC0 (CRAN's copy): D. Chen, Online Retail, UCI Machine Learning Repository, 2015",
        citation="Chen, Sain and Guo, J. Database Marketing 19(3), 2012, doi:10.1057/dbm.2012.17; UCI, dataset 352",
        table="2291190b720532c5f9fb57252f55746dc185f265f0cb2fd5890e71a91cddeb66",
        read=read_invoices,
    ),
}
