# A peer: FastAPI over SQLAlchemy and asyncpg as their own pages show them, with a session for each request.
import os
from datetime import datetime
from decimal import Decimal
from typing import Any, Dict, List, Optional

from fastapi import Depends, FastAPI, Header, HTTPException, Path, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, condecimal, conint, constr, validator
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    FetchedValue,
    Identity,
    Integer,
    Numeric,
    Text,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import declarative_base, sessionmaker

KEPT_CONNECTIONS = 5
MOST_CONNECTIONS = int(os.environ["POOL_MAX"])
LARGEST_ID = 2**53 - 1
LARGEST_STOCK = 2**31 - 1
DEEPEST_ATTRIBUTES = 100

engine = create_async_engine(
    make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+asyncpg"),
    pool_size=KEPT_CONNECTIONS,
    max_overflow=MOST_CONNECTIONS - KEPT_CONNECTIONS,
    pool_pre_ping=True,
    pool_recycle=1800,
)
Session = sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)
Base = declarative_base()


class Product(Base):
    __tablename__ = "products"
    # What the database fills in comes back with the insert, and needs no select after it.
    __mapper_args__ = {"eager_defaults": True}

    id = Column(BigInteger, Identity(always=True), primary_key=True)
    sku = Column(Text, unique=True)
    name = Column(Text, nullable=False)
    description = Column(Text)
    price = Column(Numeric(12, 2), nullable=False)
    currency = Column(Text, nullable=False)
    stock = Column(Integer, nullable=False)
    attributes = Column(JSONB, nullable=False)
    version = Column(
        BigInteger, nullable=False, server_default=FetchedValue(), server_onupdate=FetchedValue()
    )
    created_at = Column(DateTime(timezone=True), nullable=False, server_default=FetchedValue())
    updated_at = Column(
        DateTime(timezone=True),
        nullable=False,
        server_default=FetchedValue(),
        server_onupdate=FetchedValue(),
    )


class NewProduct(BaseModel):
    sku: Optional[constr(strict=True, min_length=1, max_length=64)] = None
    name: constr(strict=True, strip_whitespace=True, min_length=1, max_length=200)
    description: Optional[constr(strict=True, max_length=5000)] = None
    price: condecimal(ge=0, max_digits=12, decimal_places=2)
    currency: constr(strict=True, regex=r"\A[A-Z]{3}\Z") = "USD"
    stock: conint(strict=True, ge=0, le=LARGEST_STOCK) = 0
    attributes: Dict[str, Any] = {}

    # Before pydantic makes an object of what is none, such as a list. How many bytes they take, when
    # they are written as jsonb, is left to the table.
    @validator("attributes", pre=True)
    def is_object(cls, attributes):
        if not isinstance(attributes, dict):
            raise TypeError("must be an object")
        if depth_of(attributes) > DEEPEST_ATTRIBUTES:
            raise ValueError(f"must nest at most {DEEPEST_ATTRIBUTES} levels")
        return attributes


class ProductPatch(NewProduct):
    name: constr(strict=True, strip_whitespace=True, min_length=1, max_length=200) = None
    price: condecimal(ge=0, max_digits=12, decimal_places=2) = None


class Answer(BaseModel):
    class Config:
        orm_mode = True
        json_encoders = {
            datetime: lambda time: time.isoformat(timespec="microseconds").replace("+00:00", "Z")
        }


class ProductAnswer(Answer):
    id: int
    sku: Optional[str]
    name: str
    description: Optional[str]
    price: Decimal
    currency: str
    stock: int
    attributes: Dict[str, Any]
    version: int
    created_at: datetime
    updated_at: datetime


class Page(Answer):
    items: List[ProductAnswer]


def depth_of(value):
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return 0
    return 1 + max(map(depth_of, value), default=0)


async def session():
    async with Session() as opened:
        yield opened


app = FastAPI()


@app.exception_handler(HTTPException)
async def tell(_, error: HTTPException):
    return JSONResponse({"error": error.detail}, error.status_code)


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.get("/products", response_model=Page)
async def list_products(
    limit: int = Query(20, ge=1, le=100),
    cursor: Optional[int] = Query(None, ge=1, le=LARGEST_ID),
    db: AsyncSession = Depends(session),
):
    statement = select(Product).order_by(Product.id.desc()).limit(limit)
    if cursor is not None:
        statement = statement.where(Product.id < cursor)
    return {"items": (await db.execute(statement)).scalars().all()}


@app.get("/products/{id}", response_model=ProductAnswer)
async def get_product(id: int = Path(ge=1, le=LARGEST_ID), db: AsyncSession = Depends(session)):
    product = await db.get(Product, id)
    if product is None:
        raise HTTPException(404, "not found")
    return product


@app.post("/products", response_model=ProductAnswer, status_code=201)
async def create_product(new: NewProduct, db: AsyncSession = Depends(session)):
    product = Product(**new.dict())
    db.add(product)
    await commit(db)
    return product


@app.patch("/products/{id}", response_model=ProductAnswer)
async def change_product(
    patch: ProductPatch,
    id: int = Path(ge=1, le=LARGEST_ID),
    if_match: str = Header(regex=r'\A"[1-9][0-9]{0,15}"\Z'),
    db: AsyncSession = Depends(session),
):
    product = await db.get(Product, id, with_for_update=True)
    if product is None:
        raise HTTPException(404, "not found")
    if product.version != int(if_match.strip('"')):
        raise HTTPException(412, "another version")
    for field, value in patch.dict(exclude_unset=True).items():
        setattr(product, field, value)
    await commit(db)
    return product


async def commit(db: AsyncSession):
    try:
        await db.commit()
    except DBAPIError as error:
        code = getattr(error.orig, "sqlstate", None) or ""
        if code == "23505":
            raise HTTPException(409, "the sku is taken")
        # A check of the table, a null, or a value that its type cannot hold.
        if code in ("23502", "23514") or code.startswith("22"):
            raise HTTPException(422, "invalid product")
        raise
