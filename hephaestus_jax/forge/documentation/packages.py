"""Pinned archives whose written documentation the corpus reads; each permits reuse for no more than a notice."""

from __future__ import annotations

from hephaestus_jax.forge.sources.source import Package


def _sdist(name: str, version: str, sha256: str, licence: str) -> Package:
    return Package("pypi", name, version, sha256, licence, sdist=True)


PACKAGES = (
    _sdist(
        "aiohttp", "3.14.5", "5558a7f5a05af9ecf744af91e5baefc436f93c9333e656c27ec253f9a6bbe178", "Apache-2.0 AND MIT"
    ),
    _sdist("alembic", "1.20.1", "83490def1f723413db5096591f7609ac52544805be93849170088ed04f5a2e0b", "MIT"),
    _sdist("astropy", "8.0.2", "e6af35823099ad6a40b57dbe5ff845f577374ea131925c9fa4b49eeab06c5310", "BSD-3-Clause"),
    _sdist("attrs", "26.1.0", "d03ceb89cb322a8fd706d4fb91940737b6642aa36998fe130a9bc96c985eff32", "MIT"),
    _sdist("barbican", "23.0.0", "7be81c61d4aa02b4b411b3cdbc5dff7c6fcbee54053069e0c1fd9bfe45b8a780", "Apache-2.0"),
    _sdist("beets", "2.14.1", "b25dc7bf8ed093d8b6e043e88013736902c1082c958b81a598af5db5275539a5", "MIT"),
    _sdist("BuildStream", "2.8.1", "fb5bd956cf879470f0f099c9d5e190c5e230d269d9f0d6d809b1b7e24c0ca313", "Apache-2.0"),
    _sdist("ceilometer", "27.0.0", "6692cdf9c1f5f24d6aadde811a69fc8df8c1d672824022bea885cd92cc2bee30", "Apache-2.0"),
    _sdist("CherryPy", "18.10.0", "6c70e78ee11300e8b21c0767c542ae6b102a49cac5cfd4e3e313d7bb907c5891", "BSD-3-Clause"),
    _sdist("cinder", "29.0.0", "6372ca98db3d7781031ce5950b44698badd6176db794ff1f74b0621be583429e", "Apache-2.0"),
    _sdist("click", "8.5.1", "9bbfada76703fd1d784b83eea012e3e8c6a001a876543ef104fa56aaaeb072b4", "BSD-3-Clause"),
    _sdist("coverage", "7.17.3", "6695d1bb2a9a2fbd7806d69d78cf30f35eb0f65045da0ec5b5045242fadd6a78", "Apache-2.0"),
    _sdist(
        "cryptography",
        "50.0.2",
        "7b46165bb56eb4704e2eaaf86f3c940d19154535d9b0ca7d6d590b04060e00d5",
        "Apache-2.0 OR BSD-3-Clause",
    ),
    _sdist("Cython", "3.3.1", "e0e45989e821bef6aa9ae15c7d583ab5e055f7406c4b3624e49e06d24e90375a", "Apache-2.0"),
    _sdist("dask", "2026.8.0", "8a94c37b5de6d869343340dc26c3c3acca7ec48a3abdabe00ea3abb1125884d5", "BSD-3-Clause"),
    _sdist("designate", "23.0.0", "9ef0be54042b3dcaab297e3a5798048134def469b5ed6302c8f6283b0914de83", "Apache-2.0"),
    _sdist(
        "distributed", "2026.8.0", "6f55008ecacf96ba945309fc12e680544764995e27bd63cc5e109afb97d7044d", "BSD-3-Clause"
    ),
    _sdist("Django", "6.1.3", "b5d2d9e35295065d13b1927b3f19a59bd119f737aa6299def14ccca1ae3c8c0d", "BSD-3-Clause"),
    _sdist("django-allauth", "65.21.1", "128344e260a22b62796747be0a2249ad9488a509c1aa34ab35e3fcf22862dd9e", "MIT"),
    _sdist("falcon", "4.4.0", "9f3ffbddc8baed4573295642eddb18a37eea37baba9f20c5be379c8b3d3d79e6", "Apache-2.0"),
    _sdist("Flask", "3.1.3", "0ef0e52b8a9cd932855379197dd8f94047b359ca0a78695144304cb45f87c9eb", "BSD-3-Clause"),
    _sdist("glance", "33.0.0", "f6483b580565836e412747ed247703e52a96b0cf168c732986ac595377c92678", "Apache-2.0"),
    _sdist("gunicorn", "27.0.1", "b1514965361c8b7e8107a80aa2a92636878df1ccfac6dd204a676426e04d9e3e", "MIT"),
    _sdist("h5py", "3.16.0", "a0dbaad796840ccaa67a4c144a0d0c8080073c34c76d5a6941d6818678ef2738", "BSD-3-Clause"),
    _sdist("horizon", "27.0.0", "b1e16e3be554b543b1858df3b35dee3e4212e3ed61513512fddbe49584658cc0", "Apache-2.0"),
    _sdist("ipyparallel", "9.2.0", "2b31bb4e94708e7ffb4ee6501d7f5f664df7e1c4c572e91e9e0d12484c6a6910", "BSD-3-Clause"),
    _sdist("ipython", "9.18.1", "6319c0f5372c196397899479e6db1783dd7937abae06815d1317e8d5d51aaaaf", "BSD-3-Clause"),
    _sdist("ironic", "39.0.0", "205364829cf7ab1d03f80e4c684cf2aa6693170eae8457b9344100e43b737a5e", "Apache-2.0"),
    _sdist("Jinja2", "3.1.6", "0137fb05990d35f1275a587e9aee6d56da821fc83491a0fb838183be43f66d6d", "BSD-3-Clause"),
    _sdist("jupyterhub", "6.1.1", "1d7b6713b31ebd76d61a13c202f9323e66c4e8cf731adc5d3052bb6ee6178a95", "BSD-3-Clause"),
    _sdist("keystone", "30.0.0", "8f3f77175a039e408d870c6ea697a4cc4e9cf2755bd6cbc11230db4146dd7df4", "Apache-2.0"),
    _sdist("kolla-ansible", "23.0.0", "213de150825e750829ab30e6655726626f2c6b57be06e6cc4716ae67eb364b7a", "Apache-2.0"),
    _sdist("lxml", "6.1.3", "45222d94ddd511536f3b2f7d9deae3b2339b4ce0f075f1ca25703b07cad9dd21", "BSD-3-Clause"),
    _sdist("magnum", "23.0.0", "1fefec2aef5736ae1d181b9e9c7ba00a7a53ae7cd632ef20d219bf97b9750f5a", "Apache-2.0"),
    _sdist("manila", "23.0.1", "8594a27326116fc9203b1381faea327ea2777a30f85cbbaa4fa29d4818efd4c9", "Apache-2.0"),
    _sdist(
        "matrix-synapse", "1.98.0", "02df99a2fec53777f76f2cbd275b4d13b719d67b9c2737188392a225fed5424f", "Apache-2.0"
    ),
    _sdist("mopidy", "4.0.5", "8ee57d41dc90923ddbf10d289bbbba8fd589da09f59e9f2c2162d5dc3b4e1328", "Apache-2.0"),
    _sdist("mypy", "2.4.1", "63b590965691e540a335fa74dadf31a7069142f6b72e234689bbd244edf55623", "MIT"),
    _sdist("neutron", "29.0.0", "4dc123ed085a4b2cc8af1c4fa8d7162042c4e7cfa5e895f62e99a3b46d92ba31", "Apache-2.0"),
    _sdist("Nikola", "8.3.3", "636d7d6ffc2ab24f4c2649e8695f8bb5604e309153ea4b60b786facae03ab1c7", "MIT"),
    _sdist("nova", "34.0.0", "919eef77cda4ce0cc4746a5853b5d9341ebd0ae37bc8b1939eb77d17727c00df", "Apache-2.0"),
    _sdist("numba", "0.68.1", "9de461812470173a14eeb7e0bbd27c897dffe835402a33861166842fc5f6ea57", "BSD-2-Clause"),
    _sdist("numpy", "2.5.5", "5cddc243c75114ba845f01b1f87aca1572dbf7b6c2d88636ed3e1d2bccd7f1bf", "BSD-3-Clause"),
    _sdist("octavia", "19.0.0", "accaa633297c9994439a060e8b786c336fe549bfee6c7314663b514f59a81004", "Apache-2.0"),
    _sdist(
        "openstack-heat", "27.0.1", "65eac7175938a3f38e7e4990ebf52aa8641a1d52f4190ea795c5872d014154b6", "Apache-2.0"
    ),
    _sdist("peewee", "4.5.3", "434576afaf806428a01f84af74c42fde59372c4f6a6eba26d9b5372113344a8a", "MIT"),
    _sdist("pip", "26.3", "6c36ae7da8695be67e3cd9f7d87919667ced53f57ce2ede75d89b5912ed2bc4c", "MIT"),
    _sdist("psutil", "7.2.2", "0746f5f8d406af344fd547f1c8daa5f5c33dbc293bb8d6a16d80b4bb88f59372", "BSD-3-Clause"),
    _sdist("pyglet", "2.1.19", "77fae024df940c60917ba604bab9b7e26306d66734186634b698c708cdd9f4be", "BSD-3-Clause"),
    _sdist("pytest", "9.2.0", "97c4f3b1f3c7414aa36465e09b8220f1d03627993bd51b1282e193753c80557b", "MIT"),
    _sdist(
        "python-watcher", "17.0.0", "acec547a752169fc321611132c38ecb63db1f2f1b12051172504495d4e04aaa9", "Apache-2.0"
    ),
    _sdist("rally", "5.1.1", "fde27bb20d77d08dc161c2737f9ce9db201b9d60e49ef22ca00f6a8cf841be94", "Apache-2.0"),
    _sdist("rasterio", "1.5.2", "e65a15b7bd22ce8f8ce8159856669dc9fafabf66cde6156e8f8e71d55abcd515", "BSD-3-Clause"),
    _sdist("salt", "3008.5", "0259deafd601d783721e5aa8ed10677d8c4d6cc12f5de17499af71590d593315", "Apache-2.0"),
    _sdist("scikit-learn", "1.9.1", "629cada3e33e2b9bf376cdc7614a47a4140b8aedc1d836579e359736fbd82977", "BSD-3-Clause"),
    _sdist("scipy", "1.18.1", "52c4b7422442aba924d03ad4019852b08a92e64ea187b933135687bfe2747307", "BSD-3-Clause"),
    _sdist("Scrapy", "2.19.0", "34130726582b64c91531162ab277c4053e558876d49ba219cb43679e71d80a87", "BSD-3-Clause"),
    _sdist("setuptools", "84.2.1", "3ff8b3b5492a0aa66960f4419365a86b84e013070d4313e4d4a6894f5d64d6bc", "MIT"),
    _sdist("simpy", "4.1.2", "76ef36b71e0436ba94e55febc001c78879e493a323f045bbcfbb0b216e9b1fbc", "MIT"),
    _sdist("Sphinx", "9.2.0", "90470459f3cab15d9dfed146c71cf77694b0445df17b2e0e69059cb9f7fc9ee4", "BSD-2-Clause"),
    _sdist("SQLAlchemy", "2.1.9", "d700a8b2edfb26282a470333d6bc4a454c4acda4d201a3bea7b72fa76c217d28", "MIT"),
    _sdist("statsmodels", "0.15.0", "5d257fe58d0772bc46a557880ca78e2a8e07fec7bfd9d11074aef8e33e1aecbc", "BSD-3-Clause"),
    _sdist("sunpy", "8.0.1", "185d545a4a4b04bc8924170d47c25fb4d736e174cf55ff386a2eae52606b1240", "BSD-3-Clause"),
    _sdist("swift", "2.38.3", "561b2f8acc5ce834a0a2bac200e8ccd8784cb5c4a9e3731881d2e66dec4b6006", "Apache-2.0"),
    _sdist("sympy", "1.14.0", "d3d3fe8df1e5a0b42f0e7bdf50541697dbe7d23746e894990c030e2b05e72517", "BSD-3-Clause"),
    _sdist("tables", "3.11.1", "78abcf413091bc7c1e4e8c10fbbb438d1ac0b5a87436c5b972c3e8253871b6fb", "BSD-3-Clause"),
    _sdist("tacker", "16.0.0", "02f8bde37ae57c617f80b6b0ef6c7b930bd3c1753224edf5750da23c8a6af015", "Apache-2.0"),
    _sdist("tempest", "47.0.0", "48846910ad1310eb413b878fa2e6884aada5a90a2cbefab08231d0ecf10cbc8d", "Apache-2.0"),
    _sdist("Theano", "1.0.5", "6e9439dd53ba995fcae27bf20626074bfc2fff446899dc5c53cb28c1f9202e89", "BSD-3-Clause"),
    _sdist("tornado", "6.6.1", "28e6311402af59c8b02e3fa0f5e7d8eb465b25081381803b127d97e6a4395d5a", "Apache-2.0"),
    _sdist("trio", "0.35.0", "7efb295c78a0ecd1235c5759e620b5da564ca80d2efcb0055423588547248b96", "MIT OR Apache-2.0"),
    _sdist("trove", "26.0.0", "96401d646c52b9f5669669a6a6a91d3b7b9ef434266ef8827f9f9bcded4554fe", "Apache-2.0"),
    _sdist("Twisted", "26.10.0", "5f0355403e507fc23ceea85e9dbb4bc59335aabde41dd324e8b8cea180dd38de", "MIT"),
    _sdist("Werkzeug", "3.1.9", "55ca7c70a75689be937aa27f8ff4b018f06ff4838fc73045560bf0f5a1291060", "BSD-3-Clause"),
    _sdist("xarray", "2026.9.0", "6abc69694c22fa1f0fb2f357ff4e41d88beb4477ed71091f944b7dbf67ed54fe", "Apache-2.0"),
    _sdist("yt", "4.4.2", "e0883a89c2543b436c3778f555edf253c71f252f744752dc1688f8524ad03b0b", "BSD-3-Clause"),
    _sdist("zarr", "3.4.2", "645d64f292f457120fc0ca18dbe38f665b4c21aaea38a2a88b5eead8f06f3d28", "MIT"),
    _sdist("zuul", "14.3.0", "2ec0f4d7a5699dac543e4f63c3728d34d13e1bb30be126aa787b3a8e69cf8ef0", "Apache-2.0"),
    Package("npm", "ai", "6.0.326", "71df15c4429203af31b0ea596c0778664eb913647515639a54672dfb4e7ae5b3", "Apache-2.0"),
    Package(
        "npm",
        "aws-cdk-lib",
        "2.276.0",
        "35cb8830d1ec5a4f7b11e459fecf3ec5e6077ffbdd92253d84d0503c28cac8af",
        "Apache-2.0",
    ),
    Package("npm", "fastify", "5.12.8", "459048aabd9311309f4f95b36e8ca065e3a4613ded292bcf50442926931e4748", "MIT"),
    Package("npm", "next", "16.4.6", "954cc114e2e4f57464f6d2f6640ec9b7a8e493ad4373c692b2d37d135da2806a", "MIT"),
    Package("npm", "undici", "7.30.2", "2bf5b1c41724614729cb383f22c64506b6665869d385de862752c33763fcce1b", "MIT"),
)
